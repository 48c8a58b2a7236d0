"""The frames that figures draw."""
