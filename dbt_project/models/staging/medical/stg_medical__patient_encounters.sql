{{ mirror_table('medical', 'patient_encounters', [
  'messageId', 'insertedAt', 'isStreaming', 'patient', 'encounter',
]) }}
