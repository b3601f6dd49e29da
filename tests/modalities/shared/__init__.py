"""Tests of what modalities share."""
