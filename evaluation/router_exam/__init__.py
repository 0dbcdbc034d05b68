"""Routers examined on question text: what they get right, what confuses them, and what that costs."""
