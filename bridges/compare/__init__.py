"""Comparison: is what the dense model does the same computation as the sparse circuit's, across the bridges?"""
