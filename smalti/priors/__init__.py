"""Priors over codes: one family, p(codes given condition), with the verbs score (nll), step and sample."""
