"""An ensemble written for serving: SavedModel, ONNX and LiteRT, each compared with it."""
