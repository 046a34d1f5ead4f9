"""What has to be in order on this host for measuring: one small function a check, one table of them."""
