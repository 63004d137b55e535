"""From a run's folder to a repository on the Hub: what is published, and the conversation that publishes it."""
