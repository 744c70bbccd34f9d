{{ mirror_table('elation', 'appointment', [
  'id', 'patient_id', 'physician_user_id', 'appt_type', 'description', 'billing_note', 'duration', 'appt_time',
  'creation_time', 'status', 'deletion_time',
]) }}
