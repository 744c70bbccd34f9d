{{ mirror_table('elation', 'med_order', [
  'id', 'patient_id', 'prescribing_user_id', 'creation_time', 'last_modified', 'deletion_time', 'type',
  'medication_type', 'route', 'form', 'strength', 'qty', 'auth_refills', 'ndc', 'displayed_medication_name',
  'directions', 'pharmacy_instructions', 'start_date',
]) }}
