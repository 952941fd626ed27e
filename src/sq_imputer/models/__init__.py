"""One file, one model. The name of the file is the name of the model; the class in it is `Model`."""
