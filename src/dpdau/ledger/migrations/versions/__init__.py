"""One file for each revision; a published revision never changes."""
