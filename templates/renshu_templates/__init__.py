"""Application templates of renshu."""
