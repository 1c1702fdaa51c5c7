"""Prices: the book in which they are looked up, and the arithmetic that turns usage into cost lines and bounds."""
