{{ mirror_table('commons', 'event', [
  'body', 'type', 'createdAt',
]) }}
