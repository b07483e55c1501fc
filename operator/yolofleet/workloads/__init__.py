"""What runs a revision, pure: one module a kind, which writes its objects and reads them back."""
