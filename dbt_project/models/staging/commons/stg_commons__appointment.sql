{{ mirror_table('commons', 'appointment', [
  'id', 'patientId', 'startAt', 'endAt', 'title', 'description', 'providerName', 'providerCredentials', 'generatedBy',
  'clinicId', 'locationFreeText', 'facility', 'createdById', 'createdAt', 'updatedAt', 'deletedAt',
]) }}
