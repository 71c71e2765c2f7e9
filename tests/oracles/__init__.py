"""Second opinions: nothing in here shares code with the package."""
