"""Several processes that train one model, and the signals that end them."""
