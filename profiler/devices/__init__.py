"""What a device is: its identity, the table of boards, building its firmware."""
