"""Images, locally connected layers and networks of them, trained awake and shared asleep."""
