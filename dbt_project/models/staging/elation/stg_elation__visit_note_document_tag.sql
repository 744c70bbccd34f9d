{{ mirror_table('elation', 'visit_note_document_tag', [
  'visit_note_id', 'document_tag_id',
]) }}
