"""What a pre-trained model is worth: partner probe, linear probe, reconstruction pictures."""
