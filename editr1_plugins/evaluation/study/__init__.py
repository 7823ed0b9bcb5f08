"""Human studies: blind comparisons of two editors (Good / Same / Bad), as a page to answer and as figures from it."""
