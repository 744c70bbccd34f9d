"""What the environment says: read and validated once. Every part is a module of its own."""

from mirror_assets.settings.environment import HOME, Environment, Settings

__all__ = ["HOME", "Environment", "Settings"]
