"""Tasks of renshu: one folder each."""
