"""Features of objects: moments, surfaces and grey values, from exact sums over their parts."""
