"""What lies on disk: run folders, locks, manifests, models' files, whole or absent."""
