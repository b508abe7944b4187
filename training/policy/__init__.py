"""The escalation policy's numbers: how they were chosen on whole chats, and how to score others."""
