"""Who splits traffic, pure: one module a router, which writes its objects and reads them back."""
