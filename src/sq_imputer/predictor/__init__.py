"""What every model is, and what is done with any: registered, configured, trained, saved."""
