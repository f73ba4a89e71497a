"""What is shipped: the wheel, the source archive, and the program that they install."""
