"""What a run leaves on disk: its folder, its tables, its tracking, and parts of them while a stage goes on."""
