"""A farm that is tormented for half an hour, and the count of what came of it."""
