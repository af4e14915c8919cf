"""Other people's formats: checkpoints, circuits, prompt pairs and the Hub, read and written."""
