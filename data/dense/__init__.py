"""Images with a label, a depth and a normal per pixel: folders, augmentation, made rooms, conversion."""
