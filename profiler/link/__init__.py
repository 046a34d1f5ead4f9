"""The link to devices: frames, messages, sessions, and the ports that start emulators and agents."""
