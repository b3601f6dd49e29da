"""What several modalities use: splits, folders, features of pictures, probes, sheets. It imports
none of them."""
