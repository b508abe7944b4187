"""From a trained model to the bundle that the worker loads."""
