{{ mirror_table('elation', 'user', [
  'id', 'email', 'is_active', 'practice_id', 'first_name', 'last_name', 'specialty', 'credentials', 'npi',
]) }}
