"""Every query of the farm, by noun; nothing outside this package speaks SQL.

Callers' queries take the tenant, so that tenants never meet. Workers' writes take the job and the attempt number, so
that a worker which was thought dead changes nothing.
"""
