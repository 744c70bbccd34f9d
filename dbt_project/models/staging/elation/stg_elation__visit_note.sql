{{ mirror_table('elation', 'visit_note', [
  'id', 'patient_id', 'practice_id', 'name', 'document_date', 'physician_user_id', 'signed_by_user_id',
  'signed_time', 'deletion_time',
]) }}
