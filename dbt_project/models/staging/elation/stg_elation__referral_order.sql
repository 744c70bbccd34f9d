{{ mirror_table('elation', 'referral_order', [
  'id', 'patient_id', 'prescribing_user_id', 'practice_id', 'creation_time', 'last_modified', 'deletion_time',
  'recipient_org_name', 'recipient_firstname', 'recipient_lastname', 'recipient_credentials',
  'recipient_npi', 'recipient_specialty', 'subject', 'body', 'delivery_method',
]) }}
