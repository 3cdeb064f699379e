"""What is kept on disk: files that are whole, locks, records, run directories."""
