"""Fuzz: odd and hostile input, each case ending in a right answer or in one sentence."""
