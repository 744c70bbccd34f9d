{{ mirror_table('commons', 'user', [
  'id', 'firstName', 'lastName', 'email', 'phone', 'npi', 'userRole', 'homeClinicId', 'homeMarketId', 'lastLoginAt',
  'terminatedAt', 'createdAt', 'deletedAt',
]) }}
