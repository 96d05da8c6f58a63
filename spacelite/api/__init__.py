"""What Python users call. In: data and settings. Out: objects that print and show themselves."""
