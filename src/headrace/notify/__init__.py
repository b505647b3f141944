"""People are told what the house does by itself: a Slack channel, an address of theirs, or both."""
