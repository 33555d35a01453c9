"""What leaves the house: ONNX graphs proven against their model, and the model card."""
