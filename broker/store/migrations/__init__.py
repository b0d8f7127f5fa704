"""The schema's steps: NNNN_name.sql, run once each, in order. A step that was released never changes."""
