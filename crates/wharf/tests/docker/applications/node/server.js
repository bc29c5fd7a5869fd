const express = require('express')

const app = express()
app.get('/', (_, answer) => answer.send('hello from Node'))
const server = app.listen(8080)
process.on('SIGINT', () => server.close(() => process.exit(0)))
