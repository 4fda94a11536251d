"""The one autoencoder, and its four kinds of part: networks, bottlenecks, likelihoods."""
