"""What the tasks share. It knows none of them."""
