{{ mirror_table('elation', 'document_tag', [
  'id', 'value', 'description', 'code_type', 'code',
]) }}
